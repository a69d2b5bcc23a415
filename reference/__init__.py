"""The recipe: adapt a segmentation network from one driving domain to another with BiCL.

Run from the checkout, for instance ``python -m reference.demo``. Read the files in this order:
``classes``, ``synthetic``, ``datasets``, ``transforms``, ``config``, ``model``, ``losses``,
``pseudo_labels``, ``evaluate``, ``alarms``, ``train``, ``visualise``, ``report``, ``demo``,
``ablate``. Every file imports only files that stand before it.
"""
