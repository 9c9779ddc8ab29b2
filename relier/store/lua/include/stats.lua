-- Statistics: what became of tasks, per queue and actor, all time and by minute, hour and day. They only tell, they decide nothing.
--   st            hash  `queue LF actor` -> what was noted in the minute that is running for it; [0] is that minute
--   st:m:<minute> st:h:<hour> st:d:<day>  the same of periods since the epoch, without [0]; they expire      st:all  the same of all time
--
-- An entry is a cmsgpack map: code -> number. Codes: small numbers for what is frequent (SHORT, the histograms), names for the rest; the
-- same table is in relier/store/statistics.py. A histogram is as many codes as it has buckets, and one for its sum (µs).
--
-- Exact at any moment: `st:all` + `st`. No sweeper is needed: whoever notes something finds that the entry's minute is over, and *rolls* that entry: adds it
-- to its minute, hour and day and to `st:all`, in the same script. A clock that is set back, or ahead, ends a minute too; the same minute may come
-- again, and is added to. A crash before or after a script finds both or neither.
-- Bounded: by expiry, by MOST_ENTRIES in a shard (further ones are noted as OTHER, until others have said nothing for long) and by MOST_REASONS in an
-- entry. Needs clock.
local SHORT = { accepted = 1, completed = 2, failed = 3, retries = 4 }
-- Where the codes of a histogram begin: bucket k counts what took at most 1 ms * 2^k, the last one everything else; then comes the sum.
local WAITS, RUN_TIMES, RESURRECTIONS = 32, 64, 96

-- Returns four arguments of `note`: the bucket of a time (µs), and the sum.
local function observed(first, took)
  local k = 0
  took = math.max(took, 0)
  if took > 1000 then
    local part, exponent = math.frexp(took / 1000)
    k = math.min(part > 0.5 and exponent or exponent - 1, 23)
  end
  return first + k, 1, first + 24, took
end

local function rolling(key, entry, now)
  local MOST_REASONS = 30
  -- Periods: their name, their length (minutes), for how long (s) they are kept.
  local PERIODS = { { ':m:', 1, 21600 }, { ':h:', 60, 259200 }, { ':d:', 1440, 2678400 } }

  -- Names with a colon are reasons, of which there may be any number. What was noted under its own name once always is: so no sum goes back.
  local function name_of(counts, code)
    local all = redis.call('HGET', key .. ':all', entry)
    all = all and cmsgpack.unpack(all) or {}
    if all[code] then return code end
    for noted in pairs(counts) do all[noted] = true end
    local reasons = 0
    for other in pairs(all) do
      if type(other) == 'string' and string.find(other, ':', 1, true) then reasons = reasons + 1 end
    end
    if reasons < MOST_REASONS and #code <= 120 then return code end
    return string.match(code, '^[^:]*:') .. 'other'
  end

  local function merge(into, noted)
    local packed = redis.call('HGET', into, entry)
    local counts = packed and cmsgpack.unpack(packed) or {}
    for code, n in pairs(noted) do counts[code] = (counts[code] or 0) + n end
    redis.call('HSET', into, entry, cmsgpack.pack(counts))
  end

  local function roll(noted)
    local minute = noted[0]
    noted[0] = nil
    for _, period in ipairs(PERIODS) do
      local number, length, kept = math.floor(minute / period[2]), period[2] * 60, period[3]
      local left = math.min((number + 1) * length - now / 1000000, length) + kept
      if left > 0 then
        local into = key .. period[1] .. int(number)
        merge(into, noted)
        redis.call('EXPIRE', into, int(math.ceil(left)))
      end
    end
    merge(key .. ':all', noted)
  end

  return { name_of = name_of, roll = roll }
end

local MOST_ENTRIES, OTHER = 500, '(other)\n(other)'

-- There is no room for another entry: once an hour those that said nothing for 31 days go, and what they counted goes on as OTHER's. An entry
-- stays as long as one of its tasks has not ended or is a dead letter.
local function make_room(key, minute)
  if not redis.call('SET', key .. ':full', '1', 'NX', 'EX', 3600) then return end
  local all, left = key .. ':all', 50

  local function read(hash, entry)
    local packed = redis.call('HGET', hash, entry)
    return packed and cmsgpack.unpack(packed) or {}
  end

  local function add(into, counts)
    for code, n in pairs(counts) do
      local reason = type(code) == 'string' and string.match(code, '^([^:]*:)')
      if reason and not into[code] then code = reason .. 'other' end
      into[code] = (into[code] or 0) + n
    end
  end

  local function fold(entry, noted)
    local sum = read(all, entry)
    for code, n in pairs(noted) do sum[code] = (sum[code] or 0) + n end
    local function of(code) return sum[code] or 0 end
    if of(SHORT.accepted) ~= of(SHORT.completed) + of('discarded') or of('dead') ~= of('dlq_left') then return end
    local other = read(all, OTHER)
    add(other, sum)
    redis.call('HSET', all, OTHER, cmsgpack.pack(other))
    redis.call('HDEL', all, entry)
    redis.call('HDEL', key, entry)
    left = left - 1
  end

  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local noted = cmsgpack.unpack(flat[i + 1])
    if noted[0] < minute - 44640 and flat[i] ~= OTHER and left > 0 then
      noted[0] = nil
      fold(flat[i], noted)
    end
  end
end

-- Notes of a record's queue and actor (nil: of nobody's) pairs of codes and numbers, which follow.
local function note(rec, ...)
  local key, now = string.sub(KEYS[3], 1, -5) .. 'st', now_us()
  local entry, minute = rec and rec[QUEUE] .. '\n' .. rec[ACTOR] or '\n', math.floor(now / 60000000)
  local packed = redis.call('HGET', key, entry)
  if not packed and redis.call('HLEN', key) >= MOST_ENTRIES then
    make_room(key, minute)
    if redis.call('HLEN', key) >= MOST_ENTRIES then
      entry = OTHER
      packed = redis.call('HGET', key, entry)
    end
  end
  local counts = packed and cmsgpack.unpack(packed)
  if not counts or counts[0] ~= minute then
    if counts then rolling(key, entry, now).roll(counts) end
    counts = { [0] = minute }
  end
  for i = 1, select('#', ...), 2 do
    local code, n = select(i, ...)
    code = SHORT[code] or code
    if not counts[code] and type(code) == 'string' and string.find(code, ':', 1, true) then code = rolling(key, entry, now).name_of(counts, code) end
    counts[code] = (counts[code] or 0) + n
  end
  redis.call('HSET', key, entry, cmsgpack.pack(counts))
end

-- Counts something of a record's queue and actor (nil: of nobody's) that is a counter of the shard as well. More pairs, for `note` alone, may follow.
local function count(rec, field, by, ...)
  by = by or 1
  redis.call('HINCRBY', KEYS[3], field, by)
  note(rec, field, by, ...)
end

-- Counts a task that was discarded, and why.
local function count_discarded(rec, reason)
  local why = 'discarded:' .. reason
  redis.call('HINCRBY', KEYS[3], why, 1)
  count(rec, 'discarded', 1, why, 1)
end
