"""Turn YAML and overrides into typed values.

`schema` declares what there is, `compose` puts the groups together with Hydra, `load` checks the result and makes Structs of it,
and `roles` tells which groups decide the answers. `sweepers` and `cells` do the same for sweeps.
"""
