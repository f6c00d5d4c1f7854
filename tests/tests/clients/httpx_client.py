# httpx on asyncio, as requests_client.py.
import asyncio, json, sys, httpx


async def main():
    async with httpx.AsyncClient(timeout=30) as client:
        for words in sys.argv[2:]:
            method, url = words.split()
            answer = await client.request(method, url, content=sys.argv[1] if method == "POST" else None)
            print(json.dumps([answer.status_code, answer.json()]))


asyncio.run(main())
