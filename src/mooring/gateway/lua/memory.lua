-- A cache of bounded size that is as cheap as a table: two generations, of which the older is dropped whole when the
-- younger is full. What is asked for moves to the younger one.
local _M = {}
local Memory = {}
Memory.__index = Memory

-- What an entry takes beside its key, about: a table of eight fields and its place here.
local ENTRY_BYTES = 512

-- `most` is the size of a generation in bytes: strangers choose how long some keys are.
function _M.new(most)
    return setmetatable({ most = most, young = {}, old = {}, bytes = 0 }, Memory)
end

function Memory:set(key, value)
    if self.young[key] == nil then
        if self.bytes >= self.most then
            self.young, self.old, self.bytes = {}, self.young, 0
        end
        self.bytes = self.bytes + #key + ENTRY_BYTES
    end
    self.young[key] = value
end

function Memory:get(key)
    local value = self.young[key]
    if value == nil then
        value = self.old[key]
        if value ~= nil then
            self:set(key, value)
        end
    end
    return value
end

return _M
