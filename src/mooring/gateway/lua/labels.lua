-- Which routes have counters of their own. Most of very many have none, and of those not even a name is made.
local ffi = require("ffi")
require("resty.core.hash")
local C, band = ffi.C, bit.band

local _M = { full = false }

local MASK = 0xffff

local own = {}
local marks = ffi.new("unsigned char[?]", MASK + 1)

function _M.has(id)
    return own[id] == true
end

-- Whether it is certain that this route has none and gets none.
function _M.lacks(id, length)
    return _M.full and marks[band(C.ngx_http_lua_ffi_crc32_short(id, length), MASK)] == 0
end

function _M.set(id, has)
    own[id] = has or nil
end

-- Has `lacks` know what was set, but for those that `lives` says are gone: no request of theirs would take them out.
function _M.settle(full, lives)
    ffi.fill(marks, MASK + 1)
    for id in pairs(own) do
        if lives(id) then
            marks[band(C.ngx_http_lua_ffi_crc32_short(id, #id), MASK)] = 1
        else
            own[id] = nil
        end
    end
    _M.full = full
end

return _M
