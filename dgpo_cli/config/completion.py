def script(r): return ''
def candidates(r): return []
