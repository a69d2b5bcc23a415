"""What is remembered between steps: class prototypes and the bias between domains."""

from protocontrast.bank.domain_bias import DomainBias
from protocontrast.bank.prototype_bank import PrototypeBank

__all__ = ["DomainBias", "PrototypeBank"]
