"""Reader studies: the page that readers answer on, and what their answers are worth.

page.html, page.css, viewer.js and page.js become one file without any other (`sheet`); which image
is which stands in a key beside it (`trials`), and comes back together with the answers (`answers`).
"""
