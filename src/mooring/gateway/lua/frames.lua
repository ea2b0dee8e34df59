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

local function unmask(text, from, length, mask)
    for i = 0, length - 1 do
        unmasked[i] = bxor(byte(text, from + i), mask[band(i, 3) + 1])
    end
    return ffi.string(unmasked, length)
end

-- `seen(opcode, beginning of the payload)` is called for each frame.
function _M.new(seen)
    return setmetatable({ seen = seen, rest = "", skip = 0, count = 0 }, Reader)
end

local function number(text, from, bytes)
    local value = 0
    for i = from, from + bytes - 1 do
        value = value * 256 + byte(text, i)
    end
    return value
end

-- {opcode, length of the payload, where it begins, mask}, or nil when the head is not complete yet.
local function head(text)
    local first, second = byte(text, 1, 2)
    if not second then
        return nil
    end
    local length, at = band(second, 127), 3
    local extended = length == 126 and 2 or length == 127 and 8 or 0
    local masked = second >= 128 and 4 or 0
    if #text < 2 + extended + masked then
        return nil
    end
    if extended > 0 then
        length, at = number(text, 3, extended), 3 + extended
    end
    local mask = masked > 0 and { byte(text, at, at + 3) } or { 0, 0, 0, 0 }
    return { opcode = band(first, 15), length = length, at = at + masked, mask = mask }
end

function Reader:feed(chunk)
    if self.skip >= #chunk then
        self.skip = self.skip - #chunk
        return
    end
    local text = self.rest .. sub(chunk, self.skip + 1)
    self.skip, self.rest = 0, ""
    while #text > 0 do
        local frame = head(text)
        local wanted = frame and math.min(frame.length, LOOKED_AT)
        if not frame or #text < frame.at + wanted - 1 then
            self.rest = text
            return
        end
        self.count = self.count + 1
        self.seen(frame.opcode, unmask(text, frame.at, wanted, frame.mask))
        local past = frame.at + frame.length - 1
        self.skip = math.max(0, past - #text)
        text = sub(text, past + 1)
    end
end

return _M
