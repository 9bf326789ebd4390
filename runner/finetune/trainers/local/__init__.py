"""The trainer of this machine: LoRA on a GGUF file or a Hugging Face folder, in its own process (``python -m`` this package).

It keeps to the contract of the job folder (`runner.finetune.trainers.child`): reads ``spec.json``, ``train.jsonl`` and
``valid.jsonl``;
appends to ``metrics.jsonl``; goes on from the newest of ``checkpoints/``; leaves ``adapter/``, ``adapter.gguf`` (or, in its
place, ``merged.gguf``) and, last, ``result.json``. Knows nothing of ledgers, providers or servers.
"""
