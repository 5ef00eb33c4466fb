"""The normalisation of networks that were trained on ImageNet, as torchvision has it."""

MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)
