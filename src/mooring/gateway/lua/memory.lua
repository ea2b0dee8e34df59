-- A cache of bounded size that is as cheap as a table: two generations, of which the older is dropped whole when the
-- younger is full. What is asked for moves to the younger one.
local _M = {}
local Memory = {}
Memory.__index = Memory

function _M.new(most)
    return setmetatable({ most = most, young = {}, old = {}, count = 0 }, Memory)
end

function Memory:set(key, value)
    if self.young[key] == nil then
        if self.count >= self.most then
            self.young, self.old, self.count = {}, self.young, 0
        end
        self.count = self.count + 1
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
