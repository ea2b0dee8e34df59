-- Reads the frames of one direction of a WebSocket (RFC 6455, 5.2) as they pass; it never changes or holds any.
local ffi = require("ffi")
local byte, sub = string.byte, string.sub
local bxor, band = bit.bxor, bit.band

local _M = {}
local Reader = {}
Reader.__index = Reader

-- How much of a frame's payload is looked at: enough for the names of remote calls, which stand in front.
local LOOKED_AT = 16384

local unmasked = ffi.new("uint8_t[?]", LOOKED_AT)

-- The mask's bytes are read where they are: to collect them in a table is what the compiler cannot.
local function unmask(text, from, length, mask)
    for i = 0, length - 1 do
        unmasked[i] = bxor(byte(text, from + i), byte(text, mask + band(i, 3)))
    end
    return ffi.string(unmasked, length)
end

-- `seen(opcode, beginning of the payload)` is called for each frame.
function _M.new(seen)
    return setmetatable({ seen = seen, rest = "", skip = 0 }, Reader)
end

local function number(text, from, bytes)
    local value = 0
    for i = from, from + bytes - 1 do
        value = value * 256 + byte(text, i)
    end
    return value
end

-- Opcode, length of the payload, where it begins and where its mask does (nil: it has none) of the frame at `from`;
-- nothing when its head is not complete yet.
local function head(text, from)
    local first, second = byte(text, from, from + 1)
    if not second then
        return nil
    end
    local length, at = band(second, 127), from + 2
    local extended = length == 126 and 2 or length == 127 and 8 or 0
    local masked = second >= 128 and 4 or 0
    if #text < at + extended + masked - 1 then
        return nil
    end
    if extended > 0 then
        length, at = number(text, at, extended), at + extended
    end
    return band(first, 15), length, at + masked, masked > 0 and at or nil
end

function Reader:feed(chunk)
    if self.skip >= #chunk then
        self.skip = self.skip - #chunk
        return
    end
    local text = self.rest .. sub(chunk, self.skip + 1)
    local from, till = 1, #text
    while from <= till do
        local opcode, length, at, mask = head(text, from)
        local wanted = opcode and math.min(length, LOOKED_AT)
        if not opcode or till < at + wanted - 1 then
            break
        end
        self.seen(opcode, mask and unmask(text, at, wanted, mask) or sub(text, at, at + wanted - 1))
        from = at + length
    end
    self.skip = math.max(0, from - till - 1)
    -- `sub` takes a place beyond 2^31 for one before the text, and gives all of it.
    self.rest = from <= till and sub(text, from) or ""
end

return _M
