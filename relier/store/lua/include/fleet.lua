-- The fleet's keys, all in shard 00:
--   KEYS[1] workers hash worker id -> what it told at registration   KEYS[2] beats hash worker id -> beat counter
--   KEYS[3] gone    zset worker id -> time it was declared dead or left   KEYS[4] obligations hash dead worker id -> what is still owed
--   KEYS[5] leases  hash slot -> holder|counter                       KEYS[6] meta hash of the namespace: format, shards
--   KEYS[7] pulses  hash worker id -> pulse counter, for workers that have a pulse
--   KEYS[8] actors  hash digest -> names of the actors that a release has (JSON)
--   KEYS[9] holds   hash `queue LF name` or `actor LF name` -> since when its tasks wait, and why (JSON); version -> time of the last change (µs)
--   KEYS[10] objectives hash actor -> what it promises, and when the worker that told it had begun (JSON)
--   KEYS[11] busy  hash worker id -> what ran in it at its last beat (JSON); only for people and tools, idle workers are not in it
local WORKERS, BEATS, GONE, OBLIGATIONS, LEASES, META, PULSES, ACTORS, HOLDS, OBJECTIVES, BUSY =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
