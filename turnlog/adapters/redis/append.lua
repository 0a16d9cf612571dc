-- One append: all batches or none. Nothing is written before everything has been checked.
-- Keys: head, order, names, deadlines, lease of the views, tracking, lives, expired, reserved; of each batch: events, keys, snapshot,
-- reading; then, of each stream that was read to decide, reading.
-- Arguments: lease ('': none is needed); token of who decides; how many streams were read; milliseconds to live ('': as
-- before); step and id of the joint append that this is a part of ('' and '': of none); how many batches; of each: stream, erase, how many rows and keys, whether a snapshot, and those; what is
-- tracked ('': nothing) and up to where; tables of views.
-- Returns the position of each batch's last row, or one word (and where) on what keeps it from being written.
-- A joint append first reserves its streams: all is checked, nothing written, and nobody else writes there until it does.
local lease, token, read, ttl = take(), take(), tonumber(take()), take()
local step, joint, n = take(), take(), tonumber(take())
if lease ~= '' and redis.call('GET', KEYS[5]) ~= lease then
  return 'lease'
end
local still = true
for i = 1, read do
  local reading = KEYS[9 + 4 * n + i]
  local until_ms = redis.call('ZSCORE', reading, token)
  still = still and until_ms and tonumber(until_ms) > now_ms()
  redis.call('ZREM', reading, token)
end
if not still then
  return 'late'
end

-- Whether a row stands on the one before it, as far as they say it: an id that expired may be used again, by others.
local function follows(events, version, state)
  local before = redis.call('XRANGE', events, number(version - 1) .. '-0', number(version - 1) .. '-2')[1]
  local private = before and string.find(before[2][6], ',"private":', 1, true)
  local _, previous = string.find(state, '"previous":"', 1, true)
  if not private or not previous then
    return true
  end
  return string.sub(before[2][6], private - 46, private - 3) == string.sub(state, previous + 1, previous + 44)
end

local expires = ttl ~= '' or redis.call('EXISTS', KEYS[7]) == 1 or redis.call('EXISTS', KEYS[8]) == 1
local reserved = redis.call('EXISTS', KEYS[9]) == 1
local batches, total, top, used = {}, 0, {}, {}
for b = 1, n do
  local base = 9 + 4 * (b - 1)
  local one = {
    events = KEYS[base + 1], keys = KEYS[base + 2], snapshot_key = KEYS[base + 3], reading = KEYS[base + 4],
    stream = take(), erase = take() == '1', rows = tonumber(take()), used = tonumber(take()), has_snapshot = take() == '1',
  }
  local by = reserved and redis.call('HGET', KEYS[9], one.stream)
  if step == 'write' and by ~= joint then
    return 'settled ' .. one.stream -- somebody else has written it
  end
  if by and by ~= joint then
    return 'reserved ' .. by .. ' ' .. one.stream
  end
  one.from = at
  local before = top[one.stream]
  for i = 1, one.rows do
    local version = tonumber(ARGV[at + 1])
    if before and version <= before then
      return 'taken ' .. one.stream .. ' ' .. number(version)
    end
    before = version
    at = at + 3
  end
  if one.rows > 0 and not top[one.stream] then
    local first = ARGV[one.from + 1]
    if #redis.call('XRANGE', one.events, first .. '-0', '+', 'COUNT', 1) > 0 then
      return 'taken ' .. one.stream .. ' ' .. first
    end
    one.is_new = redis.call('EXISTS', one.events) == 0
    if expires and tonumber(first) > 1
      and (one.is_new or not follows(one.events, tonumber(first), ARGV[one.from + 3])) then
      return 'taken ' .. one.stream .. ' ' .. first -- it has expired since the writer read it
    end
  end
  if expires and step ~= 'write' then
    local deadline = redis.call('ZSCORE', KEYS[4], one.stream)
    if deadline and tonumber(deadline) <= now_ms() then
      return 'overdue ' .. one.stream
    end
  end
  top[one.stream] = before
  for i = 1, one.used do
    local field = take()
    at = at + 1
    if used[one.stream .. '\n' .. field] or redis.call('HEXISTS', one.keys, field) == 1 then
      return 'taken ' .. one.stream
    end
    used[one.stream .. '\n' .. field] = true
  end
  if one.has_snapshot then
    at = at + 1
  end
  if one.erase and redis.call('ZCOUNT', one.reading, now_ms(), '+inf') > 0 then
    return 'busy ' .. one.stream
  end
  total = total + one.rows
  batches[b] = one
end
local tracked = take()
local reached = tracked ~= '' and take()
if reached then
  local before = redis.call('HGET', KEYS[6], tracked)
  if before and tonumber(before) >= tonumber(reached) then
    return 'tracked'
  end
end

local PRIVATE = ',"private":'
local function erased(state)
  local from, to = string.find(state, PRIVATE, 1, true)
  return from and string.sub(state, 1, to) .. 'null}'
end
for _, one in ipairs(batches) do
  if one.erase then
    local bad
    each_entry(one.events, function(id, fields)
      bad = bad or (not erased(fields[6]) and id)
    end)
    if bad then
      return 'corrupt ' .. one.stream .. ' ' .. bad
    end
  end
end

if step == 'reserve' then
  for _, one in ipairs(batches) do
    redis.call('HSET', KEYS[9], one.stream, joint)
  end
  return {}
end

local views_from = at
local position = total > 0 and redis.call('INCRBY', KEYS[1], total) - total or 0
local positions = {}
for b, one in ipairs(batches) do
  at = one.from
  for i = 1, one.rows do
    local version, topic, state = take(), take(), take()
    position = position + 1
    redis.call('XADD', one.events, version .. '-1', 'p', number(position), 't', topic, 's', state)
    redis.call('XADD', KEYS[2], number(position) .. '-1', 'k', one.stream, 'v', version, 't', topic)
  end
  if one.is_new then
    redis.call('ZADD', KEYS[3], 0, one.stream)
  end
  for i = 1, one.used do
    redis.call('HSET', one.keys, take(), take())
  end
  if one.has_snapshot then
    redis.call('SET', one.snapshot_key, take())
  end
  if one.erase then
    local aside = one.events .. ':erasing'
    redis.call('RENAME', one.events, aside)
    each_entry(aside, function(id, fields)
      redis.call('XADD', one.events, id, 'p', fields[2], 't', fields[4], 's', erased(fields[6]))
    end)
    redis.call('DEL', aside, one.keys, one.snapshot_key)
    redis.call('ZREM', KEYS[4], one.stream)
    redis.call('HDEL', KEYS[7], one.stream)
  elseif expires then
    if ttl ~= '' then
      redis.call('HSET', KEYS[7], one.stream, ttl)
    end
    local life = redis.call('HGET', KEYS[7], one.stream)
    if life then
      redis.call('ZADD', KEYS[4], number(now_ms() + tonumber(life)), one.stream)
    end
  end
  if step == 'write' then
    redis.call('HDEL', KEYS[9], one.stream)
  end
  positions[b] = one.rows > 0 and position or 0
end
if reached then
  redis.call('HSET', KEYS[6], tracked, reached)
end
at = views_from
write_tables()
return positions
