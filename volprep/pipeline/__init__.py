"""The stages in order; the only room that knows the config and the machinery.

YAML -load_config-> Config -list_cases-> Cases -check-> Report -measure-> Fingerprint
  -decide-> Plan, Splits -training_sites-> Sites -cut_patches-> patches -publish-> PatchStore
"""

from volprep.pipeline.bake import run_bake
from volprep.pipeline.check import check
from volprep.pipeline.decide import plan_of, plan_of_shape
from volprep.pipeline.inputs import list_cases, load_target, voxel_count
from volprep.pipeline.measure import fingerprint
from volprep.pipeline.prepare import prepare
from volprep.pipeline.start import start

__all__ = [
    "check",
    "fingerprint",
    "list_cases",
    "load_target",
    "plan_of",
    "plan_of_shape",
    "prepare",
    "run_bake",
    "start",
    "voxel_count",
]
