"""Networks that tell real pictures from restored ones; each returns a list of logits maps, high for real.

`features` describes, by a frozen network where there is one, and `score` reads what was described; `forward`
does both. So a training step describes a restored picture once: the generator's loss goes through
`score(features(pred))`, the discriminator's through `score` of the same features, detached. Augmentation
(`losses.diffaugment`) is done before.
"""
