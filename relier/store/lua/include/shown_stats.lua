-- Statistics as a text that is parsed fast: codes and numbers in turn, with a tab between them.
local function told(counts)
  local out = {}
  for code, n in pairs(counts) do
    out[#out + 1] = code
    out[#out + 1] = n < 1e14 and n or int(n) -- table.concat rounds what is larger
  end
  return table.concat(out, '\t')
end

-- Returns the entries of a hash that `fits` wants, added to those in `into`: entry -> counts.
local function add_all(into, key, fits)
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local counts = cmsgpack.unpack(flat[i + 1])
    if not fits or fits(counts[0]) then
      counts[0] = nil
      local sum = into[flat[i]]
      if not sum then
        into[flat[i]] = counts
      else
        for code, n in pairs(counts) do sum[code] = (sum[code] or 0) + n end
      end
    end
  end
end

-- Returns a flat list: entry, its text.
local function rows(entries)
  local out = {}
  for entry, counts in pairs(entries) do
    out[#out + 1] = entry
    out[#out + 1] = told(counts)
  end
  return out
end
