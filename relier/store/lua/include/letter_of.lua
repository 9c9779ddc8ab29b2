-- Returns the summary of a dead letter from what the hash `letters` has of it. Where that is nothing, or a newer version's: from the
-- record; nil when that is newer as well. Needs letters.
local function letter_of(id, packed, died)
  local letter = packed and cmsgpack.unpack(packed)
  if letter and letter[L_VERSION] <= LETTER_FORMAT then return letter end
  local rec = load(id)
  return rec and summary(rec, died)
end
