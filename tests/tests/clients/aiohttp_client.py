# aiohttp, as requests_client.py.
import asyncio, json, sys, aiohttp


async def main():
    async with aiohttp.ClientSession() as session:
        for words in sys.argv[2:]:
            method, url = words.split()
            body = sys.argv[1] if method == "POST" else None
            async with session.request(method, url, data=body) as answer:
                print(json.dumps([answer.status, await answer.json()]))


asyncio.run(main())
