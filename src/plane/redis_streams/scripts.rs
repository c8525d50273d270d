//! What must happen at once or not at all, as scripts that Redis runs (`EVAL`). Each is one round trip.
//!
//! A run is open as long as its manifest stands: no script makes a key of a run that has none, but the
//! first lease of a manager. Keys of a closed run that had no time left would stay for ever.

/// What each begins with: the first argument says how many of those behind it are keys.
pub(super) const KEYS: &str = "\
local given, KEYS, rest = ARGV, {}, {}
local n = tonumber(given[1])
for i = 2, n + 1 do KEYS[i - 1] = given[i] end
for i = n + 2, #given do rest[i - n - 1] = given[i] end
local ARGV = rest
";

/// Keys: manifest, log, lease. Arguments: the epoch that must be held, or `""`; most entries, or 0;
/// the entry. Returns 1 when it was appended, 0 when it was fenced off, -1 when the run is gone.
pub(super) const APPEND: &str = "\
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if ARGV[1] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'e', ARGV[3])
else
  redis.call('XADD', KEYS[2], '*', 'e', ARGV[3])
end
redis.call('PERSIST', KEYS[2])
return 1";

/// Keys: manifest, lease, epochs, commands, roll. Arguments: milliseconds; the highest epoch known to
/// whoever asks; the manifest that stands from now on, or `\"\"`. Returns (1, epoch) when it was taken,
/// (0, epoch) when it is held, (-1, 0) when the run is gone.
///
/// A Redis that came back from its file may have forgotten the last epochs; who had them has not.
pub(super) const TAKE: &str = "\
if ARGV[3] == '' and redis.call('EXISTS', KEYS[1]) == 0 then return {-1, 0} end
local held = redis.call('GET', KEYS[2])
if held then return {0, tonumber(held)} end
local epoch = redis.call('INCR', KEYS[3])
if epoch <= tonumber(ARGV[2]) then
  epoch = tonumber(ARGV[2]) + 1
  redis.call('SET', KEYS[3], string.format('%.0f', epoch))
end
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[1], ARGV[3])
  for i = 3, 5 do redis.call('PERSIST', KEYS[i]) end
end
redis.call('SET', KEYS[2], string.format('%.0f', epoch), 'PX', ARGV[1])
return {1, epoch}";

/// Keys: lease. Arguments: its epoch; milliseconds. Returns whether it was held.
pub(super) const RENEW: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// Keys: lease. Arguments: its epoch. Returns whether it was held.
pub(super) const RELEASE: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// Keys: leases. Returns (epoch, milliseconds) of each: epoch 0 where nobody holds it, -1 ms where it
/// lasts for ever.
pub(super) const HOLDERS: &str = "\
local all = {}
for i, key in ipairs(KEYS) do
  local epoch = redis.call('GET', key)
  all[2 * i - 1] = epoch and tonumber(epoch) or 0
  all[2 * i] = epoch and redis.call('PTTL', key) or 0
end
return all";

/// Keys: log. Returns the id of its last entry, be it trimmed or not.
pub(super) const END_OF: &str = "\
if redis.call('EXISTS', KEYS[1]) == 0 then return '0-0' end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then return info[i + 1] end
end
return '0-0'";

/// Keys: manifest, epochs, commands, roll. Arguments: seconds; what the key of a worker's reports
/// begins with. Ends the run: the manifest goes, the rest has that long. Leases run out by themselves.
pub(super) const CLOSE: &str = "\
redis.call('DEL', KEYS[1])
for _, entry in ipairs(redis.call('XRANGE', KEYS[4], '-', '+')) do
  local ok, member = pcall(cjson.decode, entry[2][2])
  if ok then redis.call('EXPIRE', ARGV[2] .. tostring(member.name), ARGV[1]) end
end
for i = 2, 4 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
return 1";

/// Keys: logs. Arguments: of each the id of the first entry that stays.
pub(super) const TRIM: &str = "\
for i, key in ipairs(KEYS) do redis.call('XTRIM', key, 'MINID', ARGV[i]) end
return 1";
