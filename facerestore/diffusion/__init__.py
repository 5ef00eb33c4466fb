"""Parts that one-step diffusion restorers share: schedules, clean-latent formulas, latent codecs, tiling."""
