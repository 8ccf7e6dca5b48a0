"""Reader studies: can people tell real images from synthetic ones, how good are copies?

offline_page          the page that readers answer on, one HTML file (of page.html and its includes)
trials                the images of a study in random order, and the key that says which is which
giveaways             cues that tell real from synthetic without a look at the chest
answers               the key and the answers of readers, read back from their files
readings              answers as arrays; agreement of readers, attention of each
detection             how well readers tell real from synthetic
remark_findings       findings that readers name, beside what the images show
copy_rating           how good readers find copies
count_contradictions  contradictions of published counts, and the figures that they allow
study_making          evaluate.py reader-study make
study_scoring         evaluate.py reader-study score
study_planning        evaluate.py reader-study plan
"""
