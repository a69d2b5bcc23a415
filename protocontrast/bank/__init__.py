"""What is remembered between steps: class prototypes, domain bias, thresholds of confidence."""

from protocontrast.bank.class_thresholds import ClassThresholds
from protocontrast.bank.domain_bias import DomainBias
from protocontrast.bank.prototype_bank import PrototypeBank

__all__ = ["ClassThresholds", "DomainBias", "PrototypeBank"]
"""What is remembered between steps: prototypes, queues of features and the bias between domains."""
"""What is remembered between steps: prototypes, features, domain bias, distributions of logits."""

from protocontrast.bank.class_queue import ClassQueue, QueuedKeys
from protocontrast.bank.domain_bias import DomainBias
from protocontrast.bank.logit_balance import LogitBalance
from protocontrast.bank.prototype_bank import PrototypeBank

__all__ = ["ClassQueue", "DomainBias", "LogitBalance", "PrototypeBank", "QueuedKeys"]
