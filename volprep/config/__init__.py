"""The YAML: described sections, errors that name the line, and the generated training config.

The only room with pydantic and yaml. A config is read with `load_config`, which
turns every mistake into a ConfigError with file, line, dotted key and the
nearest right key.
"""

from volprep.config.keys import (
    Key,
    every_key,
    explain_key,
    given_value,
    known_key,
    on_one_line,
    plain,
)
from volprep.config.reading import (
    dump_yaml,
    json_schema,
    load_config,
    load_training_config,
    load_yaml,
    make_config,
    option_of,
    parse_changes,
    schema_path,
    with_values,
)
from volprep.config.sections import (
    CaseConfig,
    ComputeConfig,
    Config,
    PatchingConfig,
    PlanConfig,
    SkeletonConfig,
)
from volprep.config.training import TrainingConfig
from volprep.config.values import parse_memory, parse_spacing

__all__ = [
    "CaseConfig",
    "ComputeConfig",
    "Config",
    "Key",
    "PatchingConfig",
    "PlanConfig",
    "SkeletonConfig",
    "TrainingConfig",
    "dump_yaml",
    "every_key",
    "explain_key",
    "given_value",
    "json_schema",
    "known_key",
    "load_config",
    "load_training_config",
    "load_yaml",
    "make_config",
    "on_one_line",
    "option_of",
    "parse_changes",
    "parse_memory",
    "parse_spacing",
    "plain",
    "schema_path",
    "with_values",
]
