-- One idempotency key: who owns it, who waits for it, what came of it. It is in the shard of all tasks that have it.
--   idem:<key>  string: {format, state, owner, lapses}, packed. Without it the key is free. It expires some time after a completion
--   idw:<key>   zset of the ids of waiting tasks -> since when (µs)      idn  zset: key -> when sweepers look at it (µs)
--
-- States of an entry: o owned by a task that is on its way · c completed by it · x its owner ended without, waiters are being told
-- `lapses`: the owner's worker died, and from this time (µs) another task may have the key; 0 while nobody died.
--
-- Why nobody waits for ever. An owner counts only while its own record says that it is on its way (is_held), so no entry has to be
-- believed. Whoever ends releases or passes on in the same script, at most 100 at once; that there are more is in `idn` before
-- that script returns, and the sweepers' `due` goes on from there. Each waiter is a record of its own with its body and its own
-- place in the due index: what the list lacks (it was full, or data was lost) is looked at again after LOOK_AGAIN.
-- tests/model/idempotency.py searches for what happens without each of these rules.
--
-- Most tasks have no key, and making a function takes time: so all of them are made by `keys()`, when one is needed.
local AWAITS_KEY = 'waits for its key'
local NOTED = string.sub(REC, 1, -4) .. 'idn'
local function awaits_key(rec) return rec[STATE] == 's' and rec[REASON] == AWAITS_KEY end

local made
local function keys()
  if made then return made end
  local KEY_FORMAT = 1
  local K_VERSION, K_STATE, K_OWNER, K_LAPSES = 1, 2, 3, 4
  -- A record's TASK_KEYS: the key, 'wait', 'join' or 'drop', 1 if hooks follow a completion, how long a completion counts (ms), how long
  -- a dead owner keeps the key, how long its id is remembered (µs), how long its result is kept (ms).
  local T_KEY, T_ON, T_HOOKS, T_TTL, T_FLIGHT, T_KEEP, T_RESULT = 1, 2, 3, 4, 5, 6, 7

  -- How long (µs) a waiter waits until it is looked at by itself, how many a list holds, and how many are let go at once.
  local LOOK_AGAIN, WAITERS_KEPT, RELEASED_AT_ONCE = 300000000, 10000, 100

  local function entry_key(key) return string.sub(REC, 1, -4) .. 'idem:' .. key end
  local function waiters_key(key) return string.sub(REC, 1, -4) .. 'idw:' .. key end
  local function key_of(rec) return rec[TASK_KEYS] ~= '' and rec[TASK_KEYS][T_KEY] end

  local function load_entry(key)
    local packed = redis.call('GET', entry_key(key))
    return packed and cmsgpack.unpack(packed)
  end

  local function note(key, at) redis.call('ZADD', NOTED, int(at), key) end

  local function set_owner(key, id, lapses)
    redis.call('SET', entry_key(key), cmsgpack.pack({ KEY_FORMAT, 'o', id, lapses }))
  end

  -- Whether somebody else has the key. What a newer version wrote is believed.
  local function is_held(key, entry, now)
    if entry[K_VERSION] > KEY_FORMAT then return true end
    if entry[K_STATE] ~= 'o' or (entry[K_LAPSES] > 0 and entry[K_LAPSES] <= now) then return false end
    local owner, newer = load(entry[K_OWNER])
    if not owner then return newer or false end
    return (owner[STATE] == 's' or owner[STATE] == 'r') and key_of(owner) == key and not awaits_key(owner)
  end

  local function asked_by(key) return { key.k, key.on, key.hooks, key.ttl, key.flight, key.keep, key.res } end

  -- Asks for the key in the name of a task that is about to run. Returns nil when the task owns it now, 'completed' and by whom, or 'held'.
  local function ask_for_key(id, rec, key, now)
    rec[TASK_KEYS] = asked_by(key)
    local entry = load_entry(key.k)
    if entry and entry[K_STATE] == 'c' then return 'completed', entry[K_OWNER] end
    if entry and entry[K_OWNER] ~= id and is_held(key.k, entry, now) then return 'held' end
    set_owner(key.k, id, 0)
    return nil
  end

  local function await_key(id, rec, now)
    local waiters = waiters_key(key_of(rec))
    rec[REASON] = AWAITS_KEY
    put_back(id, rec, now, due_time(now) + LOOK_AGAIN)
    if redis.call('ZCARD', waiters) < WAITERS_KEPT then redis.call('ZADD', waiters, 'NX', int(now), id) end
    count(rec, 'duplicates_waited')
  end

  local function discard_duplicate(id, rec)
    rec[REASON] = 'duplicate'
    remember_end(id, rec, 'discarded', rec[TASK_KEYS][T_KEEP])
    count_discarded(rec, 'duplicate')
  end

  -- Lets a waiter be published: its claim finds what has become of the key, and it has hooks to run, or runs itself.
  local function wake(id, rec, now)
    rec[REASON] = ''
    set_due(id, due_time(now))
    save(id, rec)
  end

  -- Ends a waiter with the result of the task that completed: nothing is left to do for it on any worker.
  local function end_with(id, rec, owner)
    rec[REASON] = ''
    if owner ~= id then refer_result(id, owner, rec[TASK_KEYS][T_RESULT]) end
    remember_end(id, rec, 'completed', rec[TASK_KEYS][T_KEEP])
    count(rec, 'completed')
    count(rec, 'idempotency_hits')
    if ordinary(rec) then redis.call('HDEL', REC, id) else save(id, rec) end
  end

  local function let_go(id, rec, owner, now)
    if rec[TASK_KEYS][T_HOOKS] == 1 then wake(id, rec, now) else end_with(id, rec, owner) end
  end

  local function note_what_is_left(key)
    if redis.call('EXISTS', waiters_key(key)) == 1 then note(key, AT_ONCE) else redis.call('ZREM', NOTED, key) end
  end

  -- The key's task has completed: lets at most `limit` waiters go. Returns how many were looked at.
  local function release(key, owner, now, limit)
    local popped = redis.call('ZPOPMIN', waiters_key(key), limit)
    for i = 1, #popped, 2 do
      local id = popped[i]
      local rec = load(id)
      if rec and awaits_key(rec) then let_go(id, rec, owner, now) end
    end
    note_what_is_left(key)
    return #popped / 2
  end

  -- Nobody has the key any more: the first of at most `limit` waiters has it now. Those that asked for the owner's end (`join`) share
  -- it, if it has `ended`. Returns how many were looked at.
  local function pass_on(key, ended, now, limit)
    for looked_at = 1, limit do
      local id = redis.call('ZPOPMIN', waiters_key(key))[1]
      if not id then
        redis.call('DEL', entry_key(key))
        redis.call('ZREM', NOTED, key)
        return looked_at
      end
      local rec = load(id)
      if rec and awaits_key(rec) then
        if not (ended and rec[TASK_KEYS][T_ON] == 'join') then
          set_owner(key, id, 0)
          wake(id, rec, now)
          redis.call('ZREM', NOTED, key)
          return looked_at
        end
        discard_duplicate(id, rec)
        save(id, rec)
      end
    end
    redis.call('SET', entry_key(key), cmsgpack.pack({ KEY_FORMAT, ended and 'x' or 'o', '', 1 }))
    note(key, AT_ONCE)
    return limit
  end

  -- A task that has completed has its key for the time that completions count. After a loss of data another one may have been faster.
  local function complete_key(id, key, now)
    local entry = load_entry(key.k)
    if entry and (entry[K_VERSION] > KEY_FORMAT or (entry[K_STATE] == 'c' and entry[K_OWNER] ~= id)) then return end
    redis.call('SET', entry_key(key.k), cmsgpack.pack({ KEY_FORMAT, 'c', id, 0 }), 'PX', int(key.ttl))
    release(key.k, id, now, RELEASED_AT_ONCE)
  end

  local function leave(id, rec, now)
    local key = key_of(rec)
    local entry = load_entry(key)
    if entry and entry[K_VERSION] <= KEY_FORMAT and entry[K_STATE] == 'o' and entry[K_OWNER] == id then
      pass_on(key, true, now, RELEASED_AT_ONCE)
    end
  end

  local function keep_for_a_while(id, rec, now)
    local key = key_of(rec)
    local entry = load_entry(key)
    if entry and entry[K_VERSION] <= KEY_FORMAT and entry[K_STATE] == 'o' and entry[K_OWNER] == id then
      local lapses = now + rec[TASK_KEYS][T_FLIGHT]
      set_owner(key, id, lapses)
      note(key, lapses)
    end
  end

  -- Looks at a key that was noted. Returns how many waiters were looked at.
  local function look_at_key(key, now, limit)
    local entry = load_entry(key)
    if entry and entry[K_STATE] == 'c' then return release(key, entry[K_OWNER], now, limit) end
    if entry and is_held(key, entry, now) then
      if entry[K_LAPSES] > 0 then note(key, entry[K_LAPSES]) else redis.call('ZREM', NOTED, key) end
      return 1
    end
    return pass_on(key, entry and entry[K_STATE] == 'x', now, limit)
  end

  -- Looks at a waiter by itself. Returns true when it goes on waiting or has ended, false when it is to be published.
  local function look_at_waiter(id, rec, now)
    local key = key_of(rec)
    local entry = load_entry(key)
    if entry and entry[K_OWNER] ~= id and is_held(key, entry, now) then
      local waiters = waiters_key(key)
      if redis.call('ZCARD', waiters) < WAITERS_KEPT then redis.call('ZADD', waiters, 'NX', int(now), id) end
      set_due(id, due_time(now) + LOOK_AGAIN)
      return true
    end
    redis.call('ZREM', waiters_key(key), id)
    if entry and entry[K_STATE] == 'c' and rec[TASK_KEYS][T_HOOKS] ~= 1 then
      end_with(id, rec, entry[K_OWNER])
      return true
    end
    rec[REASON] = ''
    save(id, rec)
    return false
  end

  made = {
    ask = ask_for_key, await = await_key, discard_duplicate = discard_duplicate, complete = complete_key, leave = leave,
    keep_for_a_while = keep_for_a_while, pass_on = pass_on, look_at_key = look_at_key, look_at_waiter = look_at_waiter,
    load = load_entry, is_newer = function(entry) return entry[K_VERSION] > KEY_FORMAT end,
    is_completed = function(entry) return entry[K_STATE] == 'c' end, name = entry_key,
  }
  return made
end

-- A task has ended without completing: if it owned its key, somebody else may have it.
local function leave_key(id, rec, now)
  if rec[TASK_KEYS] ~= '' then keys().leave(id, rec, now) end
end

-- The worker that ran a task has died: its key waits for the task's next claim, but not for ever.
local function owner_died(id, rec, now)
  if rec[TASK_KEYS] ~= '' then keys().keep_for_a_while(id, rec, now) end
end

-- Looks at the keys whose time has come. Returns true when there is more to do at once.
local function look_at_keys(now, limit)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', NOTED, '-inf', int(now), 'LIMIT', 0, limit)) do
    if limit <= 0 then return true end
    limit = limit - keys().look_at_key(key, now, limit)
  end
  return limit <= 0
end
