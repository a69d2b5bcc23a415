"""How long property tests search: a repeatable selection by default, new ground when thorough."""

from hypothesis import HealthCheck, settings

# The first call of an operator is far slower than the rest, so one example's time says nothing.
ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# The same examples in every run: whoever changes a line is not to meet an old failure by chance.
settings.register_profile("repeatable", ANY_SPEED, max_examples=50, derandomize=True)
settings.register_profile("thorough", ANY_SPEED, max_examples=1000, print_blob=True)
settings.load_profile("repeatable")
