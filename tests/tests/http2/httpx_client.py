"""Python's httpx: many requests of one HTTP/2 connection at once; each third is a trigger where `book` says so."""

import asyncio
import json
import sys

import httpx

origin, book = sys.argv[1], sys.argv[2:]


async def ask(client, at):
    if book and at % 3 == 0:
        response = await client.post(f"{origin}/trips/p{at}", content=book[0])
        return response.http_version, response.status_code, response.json()["booked"] is True
    response = await client.post(f"{origin}/rooms/{at}", content=b"r" * at * 100)
    said = response.json()
    return response.http_version, response.status_code, said["path"] == f"/rooms/{at}" and said["method"] == "POST"


async def main():
    async with httpx.AsyncClient(http1=False, http2=True, timeout=80) as client:
        answers = await asyncio.gather(*(ask(client, at) for at in range(300)))
    right = [("HTTP/2", 201 if book and at % 3 == 0 else 200, True) for at in range(300)]
    print(json.dumps([answer for answer, expected in zip(answers, right) if answer != expected]))


asyncio.run(main())
