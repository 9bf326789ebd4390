"""From YAML to typed values: schema (what there is), compose (Hydra), load (dict to Struct, with errors people can act on)."""
