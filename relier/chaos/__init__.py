"""What `rl chaos` asks of workers: to die, to lose their network, to run tasks of its own.

A worker obeys only when its own RELIER_CHAOS_ENABLED is true, and tells the fleet that it would. Nothing in here is
imported otherwise.
"""
