"""The path of torch alone, where native and Triton are missing: tiles, analytic gradients.

Every function takes features as (B, D, P) of any strides and never copies them whole. One file per
operator: `contrast`, `logits`, `class_prototypes`, `transfer`, `grid`, `target_pass`,
`upsampled_cross_entropy`; `pair_contrast` alone takes rows and copies both sides, each of which
meets all of the other. `tiles`, `similarity`, `targets` and `resampling` are what they use.
"""
