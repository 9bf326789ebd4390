"""The trainer of this machine: LoRA on a GGUF file or a Hugging Face folder, in its own process (``python -m`` this package).

It follows the contract of the job folder (`runner.finetune.trainers.child`): it reads ``spec.json``, ``train.jsonl`` and
``valid.jsonl``; appends to ``metrics.jsonl``; resumes from the newest of ``checkpoints/``; and writes ``adapter/``,
``adapter.gguf`` (or ``merged.gguf`` instead) and, last, ``result.json``. It knows nothing about ledgers, providers or servers.
"""
