"""The scripts that keep the rules inside Redis, where a check and its write are one step.

A state is one string: generation (16 characters) · position (36: epoch and sequence in
hexadecimal) · the broker's timestamp (16) · flag (1: ``s`` state, ``t`` tombstone, ``f``
filled from Postgres) · the model's bytes. One hash beside the states, ``meta``, says what
they are worth: ``generation``, ``watermark`` and ``clear:<kind>``, the last two position
and timestamp. A state of another generation counts as absent, so that everything is
forgotten in one step, and losing ``meta`` alone is the same as losing everything.

Positions are lower-case digits and letters: Lua compares text by the server's locale,
and there these sort the same everywhere.
"""

from __future__ import annotations

GENERATION_LENGTH = 16
PLACE_LENGTH = 52
NO_GENERATION = "0" * GENERATION_LENGTH
NO_PLACE = "0" * PLACE_LENGTH

# KEYS: meta, state. ARGV: kind. Gives position, timestamp, flag and model, or nil.
GET = """
local value = redis.call('GET', KEYS[2])
if not value then return false end
local meta = redis.call('HMGET', KEYS[1], 'generation', 'clear:' .. ARGV[1])
if value:sub(1, 16) ~= (meta[1] or '0000000000000000') then return false end
local cleared = meta[2]
if cleared and value:sub(17, 52) < cleared:sub(1, 36) then
  -- A filled row may have been written after the TRUNCATE: then nothing is known.
  if value:sub(69, 69) == 'f' then return false end
  return cleared .. 't'
end
return value:sub(17)
"""

# KEYS: meta, state. ARGV: kind, milliseconds to keep it, model. Gives 1 when it was kept.
# A fill takes the watermark's position: Postgres was at least that far when it was read.
FILL = """
local held = redis.call('GETRANGE', KEYS[2], 0, 68)
local meta = redis.call('HMGET', KEYS[1], 'generation', 'watermark', 'clear:' .. ARGV[1])
local generation = meta[1] or '0000000000000000'
if held:sub(1, 16) == generation then
  local cleared = meta[3]
  if not (cleared and held:sub(69, 69) == 'f' and held:sub(17, 52) < cleared:sub(1, 36)) then
    return 0
  end
end
local place = meta[2] or string.rep('0', 52)
redis.call('SET', KEYS[2], generation .. place .. 'f' .. ARGV[3], 'PX', ARGV[2])
return 1
"""

# KEYS: meta, then one state a write.
# ARGV: 1 the generation of the chunk before, '' in the first; 2 a name for a new generation;
#   3 position that the watermark must have reached, '' for the beginning;
#   4 the new watermark, '' to leave it; 5 seconds to keep a tombstone;
#   6 how many clears; a kind and a place each; then a value for each state, flag 'x' to forget it.
# Gives the generation, or '' when the cache was lost since: then nothing was written.
APPLY = """
local meta = KEYS[1]
local seen = redis.call('HMGET', meta, 'generation', 'watermark')
local generation = seen[1]
local mark = seen[2] and seen[2]:sub(1, 36) or ''
if not generation then
  if ARGV[1] ~= '' or ARGV[3] ~= '' then return '' end
  generation = ARGV[2]
  redis.call('HSET', meta, 'generation', generation)
  -- Until a watermark stands: a first writer that dies half-way leaves nothing behind.
  redis.call('EXPIRE', meta, 60)
elseif (ARGV[1] ~= '' and ARGV[1] ~= generation) or mark < ARGV[3] then
  return ''
end
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  local field, place = 'clear:' .. ARGV[at], ARGV[at + 1]
  local cleared = redis.call('HGET', meta, field)
  if place:sub(1, 36) > mark and (not cleared or cleared:sub(1, 36) < place:sub(1, 36)) then
    redis.call('HSET', meta, field, place)
  end
  at = at + 2
end
for i = 2, #KEYS do
  local value = ARGV[at + i - 2]
  local place = value:sub(1, 36)
  if place > mark then
    -- A fill stands at a watermark of its time: what gets here is newer.
    local held = redis.call('GETRANGE', KEYS[i], 0, 68)
    if held:sub(1, 16) ~= generation or held:sub(17, 52) < place then
      local flag = value:sub(53, 53)
      if flag == 'x' then
        redis.call('DEL', KEYS[i])
      elseif flag == 't' then
        redis.call('SET', KEYS[i], generation .. value, 'EX', ARGV[5])
      else
        redis.call('SET', KEYS[i], generation .. value)
      end
    end
  end
end
if ARGV[4] ~= '' and ARGV[4]:sub(1, 36) > mark then
  redis.call('HSET', meta, 'watermark', ARGV[4])
  redis.call('PERSIST', meta)
end
return generation
"""

# KEYS: meta. ARGV: the watermark seen, '' for none; a name for a new generation.
RESET = """
if (redis.call('HGET', KEYS[1], 'watermark') or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'generation', ARGV[2])
redis.call('EXPIRE', KEYS[1], 60)
return 1
"""
