"""The Lua scripts of the replay queue: what must happen on the server in one step.

Owns: the scripts. Called by `controller.replay_queue`. Must not know: Python, or what a group is.
"""

# KEYS: stream, seen. ARGV: bound, group id, nonce of this push, bytes. The id is looked up before the bound, so that
# a repeated delivery never waits; it is marked last, so that an id is never marked without its entry.
PUSH = """
local seen = redis.call('HGET', KEYS[2], ARGV[2])
if seen then return {'seen', seen} end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return {'full', ''} end
local entry = redis.call('XADD', KEYS[1], '*', 'id', ARGV[2], 'group', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ' ' .. entry)
return {'added', entry}
"""

# KEYS: stream, seen. ARGV: group ids. Which of them are in the stream, which were acknowledged.
STATES = """
local states = {}
for place, id in ipairs(ARGV) do
  local seen = redis.call('HGET', KEYS[2], id)
  if not seen then states[place] = 'unknown'
  else
    local entry = string.match(seen, ' (.*)$')
    states[place] = #redis.call('XRANGE', KEYS[1], entry, entry) > 0 and 'queued' or 'acknowledged'
  end
end
return states
"""

# KEYS: stream, seen, aside, counts. ARGV: consumer group, entry, group id, kind of fault, entries kept, fields...
# One step, so that an entry is counted once; its group's id becomes free if it is this entry that holds it.
MOVE_ASIDE = """
if redis.call('XDEL', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[5], '*', unpack(ARGV, 6))
redis.call('HINCRBY', KEYS[4], ARGV[4], 1)
local seen = redis.call('HGET', KEYS[2], ARGV[3])
if seen and string.match(seen, ' (.*)$') == ARGV[2] then redis.call('HDEL', KEYS[2], ARGV[3]) end
return 1
"""
