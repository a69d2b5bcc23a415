"""What is remembered between steps: class prototypes, domain bias, thresholds of confidence."""

from protocontrast.bank.class_thresholds import ClassThresholds
from protocontrast.bank.domain_bias import DomainBias
from protocontrast.bank.prototype_bank import PrototypeBank

__all__ = ["ClassThresholds", "DomainBias", "PrototypeBank"]
