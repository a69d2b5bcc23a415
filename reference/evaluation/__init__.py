"""How good predictions and pseudo labels are; `protocol` says how it is measured."""
