"""What stands in the `config.json` of the networks that the recipes run, and the same at a size for tests.

Plain data for the builders of `facerestore.diffusion.backbones`; change one with `TINY_UNET | {...}`.
"""

from typing import Any

_KL: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}

SD21_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SD_VAE: dict[str, Any] = _KL | {"sample_size": 512, "scaling_factor": 0.18215}

SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_VAE: dict[str, Any] = _KL | {"sample_size": 1024, "scaling_factor": 0.13025}

# FLUX.1 and Z-Image share the form of their autoencoder.
FLUX_VAE: dict[str, Any] = _KL | {
    "sample_size": 1024,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
FLUX_TRANSFORMER: dict[str, Any] = {"guidance_embeds": True}
ZIMAGE_TRANSFORMER: dict[str, Any] = {"axes_lens": (1024, 512, 512)}

TAESD: dict[str, Any] = {"latent_channels": 4}  # taesdxl has the same form
TAEF1: dict[str, Any] = {"latent_channels": 16}

TINY_UNET: dict[str, Any] = {
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "use_linear_projection": True,
}
TINY_SD_VAE: dict[str, Any] = SD_VAE | {
    "sample_size": 64,
    "block_out_channels": (16, 16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
TINY_SDXL_UNET: dict[str, Any] = TINY_UNET | {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,  # six sizes of 8 numbers, and a pooled prompt of 32
}
TINY_SDXL_VAE: dict[str, Any] = TINY_SD_VAE | {"scaling_factor": 0.13025}
TINY_FLUX_VAE: dict[str, Any] = FLUX_VAE | {
    "sample_size": 64,
    "block_out_channels": (16, 16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
TINY_FLUX_TRANSFORMER: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 4, 8),
    "guidance_embeds": True,
}
TINY_ZIMAGE_TRANSFORMER: dict[str, Any] = {
    "dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 16,
    "axes_dims": (8, 4, 4),
    "axes_lens": (256, 64, 64),  # at most 64 patches of 2 x 2 latent cells along a side
}
TINY_TAESD: dict[str, Any] = TAESD | {
    "encoder_block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "num_encoder_blocks": (1, 1, 1, 1),
    "num_decoder_blocks": (1, 1, 1, 1),
}
TINY_TAEF1: dict[str, Any] = TINY_TAESD | {"latent_channels": 16}
