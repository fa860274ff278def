"""`python -m balancer`."""

from balancer.serve import serve
from balancer.settings import BalancerSettings
from mesh import process

if __name__ == "__main__":
    process.run("balancer", BalancerSettings.from_command_line(), serve)
