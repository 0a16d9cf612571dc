-- Gives positions to events of one partition, in the order in which it has them, if nobody else has come first.
-- Keys: head, order, moved. Arguments: partition; up to which of its events positions were given; how many come; of each:
-- its place in the partition, stream, version, topic, when it expired ('': it is an event).
-- Returns the position of the first, or as a text up to which event positions were given.
local partition, before, n = take(), take(), tonumber(take())
local moved = redis.call('HGET', KEYS[3], partition) or '0'
if moved ~= before then
  return moved
end
local first = redis.call('INCRBY', KEYS[1], n) - n + 1
local place
for i = 0, n - 1 do
  place = take()
  local stream, version, topic, expired = take(), take(), take(), take()
  local fields = {'k', stream, 'v', version, 't', topic, 'n', partition, 'q', place}
  if expired ~= '' then
    fields[11], fields[12] = 'x', expired
  end
  redis.call('XADD', KEYS[2], number(first + i) .. '-1', unpack(fields))
end
redis.call('HSET', KEYS[3], partition, place)
return first
