"""Raw aiohttp: bytes out, bytes in. What a Python client on aiohttp can reach at most.

aiohttp_calls.py URL CALLS CONCURRENCY
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from fanout import measure_calls


async def main(url: str, calls: int, concurrency: int) -> None:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "application/json"}
    ) as session:

        async def call(prompt: str) -> bytes:
            body = f'{{"model":"bench","messages":[{{"role":"user","content":"{prompt}"}}],"temperature":0,"max_tokens":100}}'
            async with session.post(f"{url}/chat/completions", data=body.encode()) as response:
                assert response.status == 200
                return await response.read()

        await measure_calls(call, calls, concurrency)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
