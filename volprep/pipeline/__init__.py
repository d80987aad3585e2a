"""The stages in order; the only room that knows the config and the machinery.

YAML -load_config-> Config -chosen_cases-> Cases -survey-> headers -decide-> Plan, Splits
  -measure-> Fingerprint -training_sites-> Sites -cut_patches-> patches -publish-> PatchStore
"""

from volprep.pipeline.bake import run_bake
from volprep.pipeline.check import check
from volprep.pipeline.decide import measure_plan, plan_of, plan_of_shape
from volprep.pipeline.export import Exported, export, export_all, is_export
from volprep.pipeline.inputs import (
    chosen_cases,
    compute_with,
    is_config,
    list_cases,
    load_target,
    voxel_count,
)
from volprep.pipeline.installation import environment
from volprep.pipeline.meanings import about, explain, parameters_of
from volprep.pipeline.measure import fingerprint
from volprep.pipeline.prepare import foresee, foresee_needs, make_units, next_units, prepare
from volprep.pipeline.repair import repair
from volprep.pipeline.report import REPORT, report_of_config, report_of_set
from volprep.pipeline.start import start
from volprep.pipeline.tiles import write_tiles_json
from volprep.pipeline.view import scene_of
from volprep.pipeline.volumes import open_prepared

__all__ = [
    "REPORT",
    "Exported",
    "about",
    "check",
    "chosen_cases",
    "compute_with",
    "environment",
    "explain",
    "export",
    "export_all",
    "fingerprint",
    "foresee",
    "foresee_needs",
    "is_config",
    "is_export",
    "list_cases",
    "load_target",
    "make_units",
    "measure_plan",
    "next_units",
    "open_prepared",
    "parameters_of",
    "plan_of",
    "plan_of_shape",
    "prepare",
    "repair",
    "report_of_config",
    "report_of_set",
    "run_bake",
    "scene_of",
    "start",
    "voxel_count",
    "write_tiles_json",
]
