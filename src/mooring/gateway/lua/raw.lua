-- Bytes where nginx has them. A string of Lua's is hashed, kept and collected again, and a request would make twenty.
--
-- A pointer holds until the phase of the request ends, one of `text` until the next call of it.
local base = require("resty.core.base")
local ffi = require("ffi")
require("resty.core.param")
require("resty.core.shdict")
require("resty.core.var")
local C, get_request = ffi.C, base.get_request

ffi.cdef([[
const unsigned char *memchr(const unsigned char *bytes, int byte, size_t length);
int memcmp(const unsigned char *one, const unsigned char *other, size_t length);
intptr_t ngx_atoi(const unsigned char *digits, size_t length);
void free(void *bytes);
]])

local _M = {}

local STRING, NUMBER = 4, 3
local FIRST = 1
-- Nothing that is looked up here expires: to look for what does would be a cache miss each time.
local STALE_TOO = 1
-- Where resty.core keeps what tells a dictionary's address.
local ZONE = 1
local LONGEST_KEY, LONGEST_TEXT, LONGEST_NAME = 512, 4096, 64

local Bytes = ffi.typeof("const unsigned char *")
local errors = base.get_errmsg_ptr()
local lowered = ffi.new("char[?]", LONGEST_NAME)
local value, value_length = ffi.new("unsigned char *[1]"), ffi.new("size_t[1]")
local key_bytes, text_bytes = ffi.new("unsigned char[?]", LONGEST_KEY), ffi.new("unsigned char[?]", LONGEST_TEXT)
local own_bytes = ffi.cast("unsigned char *", text_bytes)
local text, text_length = ffi.new("unsigned char *[1]"), ffi.new("size_t[1]")
local kind, number = ffi.new("int[1]"), ffi.new("double[1]")
local flags, was_stale = ffi.new("int[1]"), ffi.new("int[1]")

-- The bytes of a string, which must stay in a variable as long as they are used.
function _M.of(string)
    return ffi.cast(Bytes, string)
end

function _M.equal(bytes, length, string)
    return length == #string and C.memcmp(bytes, string, length) == 0
end

-- Where `byte` is first between `from` and before `till`, or nil.
function _M.find(from, till, byte)
    local found = from < till and C.memchr(from, byte, till - from) or nil
    if found ~= nil then
        return found
    end
end

-- The whole number that these digits are, nil when they are more than that.
function _M.number(bytes, length)
    local found = tonumber(C.ngx_atoi(bytes, length))
    return found >= 0 and found or nil
end

-- What `set_by_lua` was given, and its length.
function _M.argument()
    C.ngx_http_lua_ffi_get_setby_param(get_request(), FIRST, value, value_length)
    return value[0], tonumber(value_length[0])
end

-- A variable of nginx and its length, or nil.
function _M.variable(name)
    local found = C.ngx_http_lua_ffi_var_get(get_request(), name, #name, lowered, 0, value, value_length, errors)
    if found == 0 then
        return value[0], tonumber(value_length[0])
    end
end

-- What `text` and `stored_number` take for a shared dictionary.
function _M.dictionary(name)
    return C.ngx_http_lua_ffi_shdict_udata_to_zone(ngx.shared[name][ZONE])
end

local function read(dict, prefix, bytes, length)
    local prefix_length = #prefix
    if prefix_length + length > LONGEST_KEY then
        return nil
    end
    ffi.copy(key_bytes, prefix, prefix_length)
    ffi.copy(key_bytes + prefix_length, bytes, length)
    text[0], text_length[0] = text_bytes, LONGEST_TEXT
    local done = C.ngx_http_lua_ffi_shdict_get(
        dict, key_bytes, prefix_length + length, kind, text, text_length, number, flags, STALE_TOO, was_stale, errors
    )
    return done == 0 and kind[0] or nil
end

-- The text and its length that a dictionary has under `prefix` and these bytes; nil for numbers and for what is long.
function _M.text(dict, prefix, bytes, length)
    if read(dict, prefix, bytes, length) ~= STRING then
        return nil
    end
    if text[0] ~= own_bytes then
        C.free(text[0])
        return nil
    end
    return text[0], tonumber(text_length[0])
end

-- The number that is there, or nil. A text that `text` gave stays as it is.
function _M.stored_number(dict, prefix, bytes, length)
    return read(dict, prefix, bytes, length) == NUMBER and number[0] or nil
end

return _M
