-- Rows of a built-in view, by an index of it, all of one moment and of the generation that answers now.
-- Key: which generation of each view answers. Arguments: how all keys of views begin; view, index, rows; from, to, REV or
-- '', limit; the number of bytes of a key of the index that come before the row's own key.
local root, view, index, rows = take(), take(), take(), take()
local from, to, direction, limit, offset = take(), take(), take(), take(), tonumber(take())
local generation = redis.call('HGET', KEYS[1], view)
if not generation then
  return false
end
local base = root .. view .. '.' .. generation .. ':'
local keys
if direction == 'REV' then
  keys = redis.call('ZRANGE', base .. index .. ':order', to, from, 'BYLEX', 'REV', 'LIMIT', 0, limit)
else
  keys = redis.call('ZRANGE', base .. index .. ':order', from, to, 'BYLEX', 'LIMIT', 0, limit)
end
local values = {}
for i, key in ipairs(keys) do
  values[i] = redis.call('HGET', base .. rows .. ':rows', string.sub(key, offset + 1)) or ''
end
return {keys, values}
