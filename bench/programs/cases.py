"""All that is measured."""

from bench.programs.leaving import LEAVING
from bench.programs.staying import SERVERS, WRAPPERS

CASES = (*LEAVING, *WRAPPERS, *SERVERS)
