"""What every test shares: one thread and a hypothesis profile without deadlines.

Kept free of heavy imports: a structure test or one of `mimo --help` must not load torch.
"""

import os

from hypothesis import HealthCheck, settings

# The models here are tiny: several threads of torch only wait for one another, four times as long on a busy machine,
# and parallel workers would each start a thread per core. Set before torch is imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Deadlines measure the machine, not the code; derandomized runs fail for everyone or for no one.
settings.register_profile("mimo", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mimo")
