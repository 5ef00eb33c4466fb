"""Networks: architectures without weights, one file per published one."""
