"""How many replicas of each tier a load needs: measured stage costs in, replicas and Helm values out."""

from tandem.plan.cost_file import StageCosts, load_costs
from tandem.plan.planner import Demand, Plan, Target, make_plan

__all__ = ["Demand", "Plan", "StageCosts", "Target", "load_costs", "make_plan"]
