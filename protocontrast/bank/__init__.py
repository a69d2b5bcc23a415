"""What is remembered between steps: prototypes, features, domain bias, thresholds, logits."""

from protocontrast.bank.class_queue import ClassQueue, QueuedKeys
from protocontrast.bank.class_thresholds import ClassThresholds
from protocontrast.bank.domain_bias import DomainBias
from protocontrast.bank.logit_balance import LogitBalance
from protocontrast.bank.prototype_bank import PrototypeBank

__all__ = [
    "ClassQueue",
    "ClassThresholds",
    "DomainBias",
    "LogitBalance",
    "PrototypeBank",
    "QueuedKeys",
]
