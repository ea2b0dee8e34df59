-- What the disk says about a file, by system calls that Lua's own library does not have. Nothing is opened here.
local bit = require("bit")
local ffi = require("ffi")
local C = ffi.C

-- `statx` (statx(2)): the one call of its kind whose structure is the same on every machine.
ffi.cdef([[
typedef struct { int64_t sec; uint32_t nsec; int32_t reserved; } mooring_moment;
typedef struct {
    uint32_t mask, blksize; uint64_t attributes; uint32_t nlink, uid, gid; uint16_t mode, unused;
    uint64_t ino, size, blocks, attributes_mask; mooring_moment atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor; uint64_t more[14];
} mooring_statx;
typedef struct { long sec; long nsec; } mooring_timespec;
int statx(int folder, const char *path, int flags, unsigned int mask, mooring_statx *found);
int utimensat(int folder, const char *path, const mooring_timespec times[2], int flags);
]])

local HERE, NO_FOLLOW, BASIC = -100, 0x100, 0x7ff
local REGULAR, FOLDER, KIND = 0x8000, 0x4000, 0xf000
local OMIT = 0x3ffffffe
local READ_AGAIN_S = 3600

local found = ffi.new("mooring_statx")
local times = ffi.new("mooring_timespec[2]")

local _M = {}

-- The size of a regular file and when it was changed (seconds since the epoch), nil for anything else: a link in its
-- last place is not followed. `now` is when it is being read, which is kept to the hour whatever the mount options say.
function _M.read(path, now)
    if C.statx(HERE, path, NO_FOLLOW, BASIC, found) ~= 0 or bit.band(found.mode, KIND) ~= REGULAR then
        return nil
    end
    local changed, read = tonumber(found.mtime.sec), tonumber(found.atime.sec)
    if now - math.max(changed, read) > READ_AGAIN_S then
        times[0].sec, times[0].nsec, times[1].nsec = now, 0, OMIT
        C.utimensat(HERE, path, times, NO_FOLLOW)
    end
    return tonumber(found.size), changed
end

-- Whether `below` is a folder below `root`, with no link on the way from there.
function _M.is_folder(root, below)
    local path = root
    for name in string.gmatch(below, "[^/]+") do
        path = path .. "/" .. name
        if C.statx(HERE, path, NO_FOLLOW, BASIC, found) ~= 0 or bit.band(found.mode, KIND) ~= FOLDER then
            return false
        end
    end
    return true
end

-- A text that is another one whenever the file is, false when there is none; links are followed.
function _M.stamp(path)
    if C.statx(HERE, path, 0, BASIC, found) ~= 0 then
        return false
    end
    local changed = found.mtime
    return string.format(
        "%.0f %.0f %.0f %.0f",
        tonumber(found.ino), tonumber(changed.sec), changed.nsec, tonumber(found.size)
    )
end

-- The whole of a file of at most `most` bytes, or nil.
function _M.text(path, most)
    local file = io.open(path, "rb")
    if not file then
        return nil
    end
    local text = file:read(most + 1)
    file:close()
    return text and #text <= most and text or nil
end

return _M
