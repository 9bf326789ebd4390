"""The openai SDK's async client. openai_calls.py URL CALLS CONCURRENCY"""

from __future__ import annotations

import asyncio
import sys

import openai
from fanout import measure_calls


async def main(url: str, calls: int, concurrency: int) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def call(prompt: str) -> str | None:
            answer = await client.chat.completions.create(
                model="bench", messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=100
            )
            return answer.choices[0].message.content

        await measure_calls(call, calls, concurrency)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
