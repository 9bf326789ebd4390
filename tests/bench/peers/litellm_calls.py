"""litellm.acompletion. litellm_calls.py URL CALLS CONCURRENCY"""

from __future__ import annotations

import asyncio
import sys

import litellm
from fanout import measure_calls

litellm.telemetry = False


async def main(url: str, calls: int, concurrency: int) -> None:
    async def call(prompt: str) -> str:
        answer = await litellm.acompletion(
            model="openai/bench",
            api_base=url,
            api_key="none",
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=100,
            num_retries=0,
        )
        return answer.choices[0].message.content

    await measure_calls(call, calls, concurrency)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
