-- Many keys of a shared dictionary set as one.
local _M = {}

-- Puts back what `set_all` found.
function _M.restore(dict, before)
    for i = #before, 1, -1 do
        local key, value = before[i][1], before[i][2]
        if value == nil then
            dict:delete(key)
        else
            local ok, err = dict:safe_set(key, value)
            if not ok then
                ngx.log(ngx.CRIT, "cannot restore ", key, ": ", err)
            end
        end
    end
end

-- Sets all of `sets` or none: what was there before, nil when the dictionary is full.
function _M.set_all(dict, sets)
    local before = {}
    for key, value in pairs(sets) do
        before[#before + 1] = { key, (dict:get(key)) }
        local ok, err = dict:safe_set(key, value)
        if not ok then
            ngx.log(ngx.ERR, "shared memory: ", err)
            _M.restore(dict, before)
            return nil
        end
    end
    return before
end

return _M
